# What tests/native and bench/ drive the libraries with. Built only when asked for.
set(native ${CMAKE_CURRENT_SOURCE_DIR}/../tests/native)
if(NOT EXISTS ${native}/cap_client.c OR NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/../bench/native)
  return() # a source distribution has no tests
endif()

add_executable(cap_pages EXCLUDE_FROM_ALL ${native}/cap_pages.c)
target_link_libraries(cap_pages PRIVATE region warnings)

function(add_client target)
  add_executable(${target} EXCLUDE_FROM_ALL ${native}/cap_client.c)
  target_include_directories(${target} PRIVATE src)
  target_link_libraries(${target} PRIVATE warnings pthread ${CMAKE_DL_LIBS})
  target_compile_options(${target} PRIVATE ${ARGN})
  target_link_options(${target} PRIVATE ${ARGN})
endfunction()

add_client(cap_client)
add_client(cap_client_linked -DLINKED)
target_link_libraries(cap_client_linked PRIVATE cap_mem)
set_target_properties(cap_client_linked PROPERTIES SKIP_BUILD_RPATH ON)
add_client(cap_client_asan -fsanitize=address,undefined -fno-omit-frame-pointer)
add_client(cap_client_tsan -fsanitize=thread)

# A program with a driver of its own, linked in: what no library can come before.
add_executable(cap_static_session EXCLUDE_FROM_ALL ${native}/../support/cuda_session.c $<TARGET_OBJECTS:simcuda>)
target_compile_definitions(cap_static_session PRIVATE DIRECT)
target_link_options(cap_static_session PRIVATE -static)

foreach(bench interpose_bench interpose_crowd)
  add_executable(${bench} EXCLUDE_FROM_ALL ${CMAKE_CURRENT_SOURCE_DIR}/../bench/native/${bench}.c)
  target_include_directories(${bench} PRIVATE src)
  target_compile_options(${bench} PRIVATE -O2)
  target_link_libraries(${bench} PRIVATE warnings pthread ${CMAKE_DL_LIBS})
endforeach()

add_library(interpose_unshared MODULE EXCLUDE_FROM_ALL
  ${CMAKE_CURRENT_SOURCE_DIR}/../bench/native/unshared_driver.c)
target_include_directories(interpose_unshared PRIVATE src)
target_compile_options(interpose_unshared PRIVATE -O2)
set_target_properties(interpose_unshared PROPERTIES PREFIX "" SUFFIX ".so")

foreach(partial driver nvml)
  add_library(cap_partial_${partial} MODULE EXCLUDE_FROM_ALL ${native}/partial_${partial}.c)
  target_include_directories(cap_partial_${partial} PRIVATE src)
endforeach()

foreach(storm blocks lock)
  foreach(sanitizer address thread)
    set(target ${storm}_storm_${sanitizer})
    add_executable(${target} EXCLUDE_FROM_ALL ${native}/${storm}_storm.c src/blocks.c src/lock.c)
    target_include_directories(${target} PRIVATE src)
    target_link_libraries(${target} PRIVATE warnings pthread)
    target_compile_options(${target} PRIVATE -fsanitize=${sanitizer} -O1 -g)
    target_link_options(${target} PRIVATE -fsanitize=${sanitizer})
  endforeach()
endforeach()
