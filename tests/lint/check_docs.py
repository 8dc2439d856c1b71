"""Finds public names in include/attend without documentation, using the XML output of Doxygen.

Run: python tests/lint/check_docs.py XML_FOLDER

Prints a line for each class, function, field, enumeration, enumeration value, type and macro without a `///` comment,
and exits with 1 where there is one. These need no comment of their own:
- constructors, destructors and operators, which the comment of their class covers,
- a field that is declared in one line with one that has a comment, which then covers both,
- what LibTorch requires of each module and documents itself (kInherited).
"""
import pathlib
import sys
import xml.etree.ElementTree as ET

kInherited = {"reset", "pretty_print", "Impl"}


def is_documented(element):
    descriptions = [element.find("briefdescription"), element.find("detaileddescription")]
    return any(d is not None and "".join(d.itertext()).strip() for d in descriptions)


def needs_comment(member, class_name):
    name = member.findtext("name")
    if member.get("prot") != "public" or name in kInherited or name.startswith("operator"):
        return False
    if name.startswith("@") and member.get("kind") == "enum":  # without a name: its values are checked
        return False
    return name.lstrip("~") != class_name.rpartition("::")[2]


def location(element):
    place = element.find("location")
    return place.get("file"), int(place.get("line"))


def undocumented(xml):
    """Returns ((file, line), name) of each public name that has no comment."""
    for file in sorted(xml.glob("*.xml")):
        for compound in ET.parse(file).getroot().iter("compounddef"):
            kind, name = compound.get("kind"), compound.findtext("compoundname")
            if kind in ("class", "struct", "union") and compound.get("prot") == "public":
                if not is_documented(compound):
                    yield location(compound), name
            elif kind not in ("namespace", "file"):
                continue
            documented = {location(member) for member in compound.iter("memberdef") if is_documented(member)}
            for member in compound.iter("memberdef"):
                if kind == "file" and member.get("kind") != "define":  # a member of a namespace is listed there
                    continue
                scope = "" if kind == "file" else name + "::"
                if needs_comment(member, name) and location(member) not in documented:
                    yield location(member), scope + member.findtext("name")
                for value in member.iter("enumvalue"):
                    if not is_documented(value):
                        yield location(member), f"{scope}{member.findtext('name')}::{value.findtext('name')}"


def main():
    found = sorted(set(undocumented(pathlib.Path(sys.argv[1]))))
    for (file, line), name in found:
        print(f"{file}:{line}: {name} has no documentation: write a /// comment above it")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
