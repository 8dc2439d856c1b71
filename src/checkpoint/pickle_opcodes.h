#pragma once

#include <array>
#include <cstdint>
#include <utility>

namespace attend::checkpoint {

/// The opcodes that `Unpickler` interprets, with the names of pickletools.py in lower case.
enum class Opcode : uint8_t {
  mark = '(',
  stop = '.',
  pop = '0',
  pop_mark = '1',
  dup = '2',
  none = 'N',
  newtrue = 0x88,
  newfalse = 0x89,
  binint = 'J',
  binint1 = 'K',
  binint2 = 'M',
  long1 = 0x8a,
  long4 = 0x8b,
  binfloat = 'G',
  binstring = 'T',
  short_binstring = 'U',
  binunicode = 'X',
  short_binunicode = 0x8c,
  binunicode8 = 0x8d,
  binbytes = 'B',
  short_binbytes = 'C',
  binbytes8 = 0x8e,
  bytearray8 = 0x96,
  binput = 'q',
  long_binput = 'r',
  binget = 'h',
  long_binget = 'j',
  memoize = 0x94,
  empty_tuple = ')',
  tuple = 't',
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  empty_list = ']',
  empty_dict = '}',
  empty_set = 0x8f,
  append = 'a',
  appends = 'e',
  additems = 0x90,
  frozenset = 0x91,
  setitem = 's',
  setitems = 'u',
  global = 'c',
  stack_global = 0x93,
  reduce = 'R',
  newobj = 0x81,
  build = 'b',
  binpersid = 'Q',
  proto = 0x80,
  frame = 0x95,
};

/// The names of the opcodes that are not interpreted: those of the text protocol 0, and those for arbitrary
/// objects.
constexpr std::array<std::pair<uint8_t, const char*>, 18> kOtherOpcodes = {{
    {'I', "INT"},
    {'L', "LONG"},
    {'F', "FLOAT"},
    {'S', "STRING"},
    {'V', "UNICODE"},
    {'P', "PERSID"},
    {'d', "DICT"},
    {'l', "LIST"},
    {'g', "GET"},
    {'p', "PUT"},
    {'i', "INST"},
    {'o', "OBJ"},
    {0x82, "EXT1"},
    {0x83, "EXT2"},
    {0x84, "EXT4"},
    {0x92, "NEWOBJ_EX"},
    {0x97, "NEXT_BUFFER"},
    {0x98, "READONLY_BUFFER"},
}};

}  // namespace attend::checkpoint
