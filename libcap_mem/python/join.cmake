# Writes the files of the list `in`, one after another, to `out`: cffi reads its declarations from one file.
set(text "")
foreach(name IN LISTS in)
  file(READ ${name} part)
  string(APPEND text "${part}\n")
endforeach()
file(WRITE ${out} "${text}")
