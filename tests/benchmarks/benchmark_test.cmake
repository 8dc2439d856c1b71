# Runs the smallest comparison of PROGRAM twice and checks the files in WORK: drawings, and a table that replaces the
# table of the first run.
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
set(begin "<!-- measured, written by ./dev bench --markdown -->\n")
file(WRITE ${WORK}/table.md "Before.\n${begin}<!-- end -->\nAfter.\n")
foreach(run 1 2)
  execute_process(COMMAND ${PROGRAM} --filter "short [1, 8" --threads 1 --pairs 1 --output ${WORK}
    --markdown ${WORK}/table.md COMMAND_ERROR_IS_FATAL ANY)
endforeach()
file(READ ${WORK}/table.md table)
if(NOT table MATCHES "^Before.\n${begin}Measured on [^|]*\n\n[|] attend / [^<]*[|] short .1, 8, 10, 64. [^<]*<!-- end -->\nAfter.\n$")
  message(FATAL_ERROR "the table is not as expected:\n${table}")
endif()
file(READ ${WORK}/ratios.svg drawing)
if(NOT drawing MATCHES "^<svg [^>]*>.*<rect [^>]*/>.*</svg>\n$")
  message(FATAL_ERROR "the drawing is not as expected:\n${drawing}")
endif()
