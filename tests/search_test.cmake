# PROGRAM, the search example, with the tiny MODEL: it indexes, answers, does not index again until a file changes,
# explains, and says what is wrong. The folder WORK is made anew.
file(REMOVE_RECURSE ${WORK})
file(WRITE ${WORK}/texts/animals.txt "the quick brown fox\n\nthe lazy dog\n")
file(WRITE ${WORK}/texts/below/world.md "hello world\n")
file(WRITE ${WORK}/texts/ignored.bin "hello hello\n")

# search(CODE EXPRESSION ARGUMENTS...): the exit code, and what the output matches.
function(search code expression)
  execute_process(COMMAND ${PROGRAM} --model ${MODEL} ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output
    ERROR_VARIABLE output INPUT_FILE ${WORK}/input)
  if(NOT result EQUAL code OR NOT output MATCHES "${expression}")
    message(FATAL_ERROR "search ${ARGN}: exit code ${result}, output\n${output}\nexpected ${code}, ${expression}")
  endif()
endfunction()

file(WRITE ${WORK}/input "hello world\n\nthe lazy dog\n")
search(0 "^indexed 2 passages of 2 files\n1\\.000  below/world.md:1\nhello world\n" ${WORK}/texts "hello world" --top 1)
search(0 "^2 passages of 2 files, as indexed before\n.*animals.txt:1\n" ${WORK}/texts "quick fox")
search(0 "^2 passages.*\\? 1\\.000  below/world.md:1.*\\? .*animals.txt:1" ${WORK}/texts)
file(WRITE ${WORK}/texts/animals.txt "the quick brown fox\n\nthe lazy cat\n\na dog more\n")
search(0 "^indexed 2 passages of 2 files" ${WORK}/texts "hello" --explain ${WORK}/page.html)
file(READ ${WORK}/page.html page)
if(NOT page MATCHES "<title>hello</title>.*\"\\[CLS\\]\"")
  message(FATAL_ERROR "the page does not show the question: ${page}")
endif()
search(105 "folder: Directory does not exist" ${WORK}/nowhere)
file(MAKE_DIRECTORY ${WORK}/empty)
search(1 "^search: no .txt or .md files in ${WORK}/empty\n" ${WORK}/empty "hello")
search(1 "^search: ${MODEL}/model.safetensors is no index of search" ${WORK}/texts "hello" --index ${MODEL}/model.safetensors)
file(WRITE ${WORK}/damaged "x")
search(1 "^search: attend::load_safetensors: " ${WORK}/texts "hello" --index ${WORK}/damaged)
