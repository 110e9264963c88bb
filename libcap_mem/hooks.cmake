# The two libraries that are brought into containers. Each is whole: its own hooks, a forwarder for every other
# symbol, and the accounting, linked in.

# They load into anybody's process: nothing but libc, nothing newer than glibc 2.17, nothing that musl lacks, nothing
# to do at load.
set(guest_options -ffreestanding -fno-stack-protector -U_FORTIFY_SOURCE -fno-plt -fvisibility=hidden
    -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -O3)
set(guest_links -nostartfiles -Wl,-z,defs -Wl,-z,now -Wl,-z,relro -Wl,-z,noexecstack -Wl,-z,nodelete -Wl,-Bsymbolic
    -Wl,--hash-style=both -Wl,--gc-sections -Wl,--as-needed -Wl,--no-undefined-version -Wl,-O1
    -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/symbols/unexported.ver)

# What they are linked with in libc's place: its SONAME, and as names without versions all that they may use, which both
# glibc 2.17 and musl have. A name with a version that is missing from libc (dlopen, before glibc 2.34) makes loaders before
# 2.30 start no program, weak or not.
file(STRINGS symbols/libc.txt functions)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS symbols/libc.txt)
set(stub ".section .note.GNU-stack,\"\",%progbits\n.text\n")
foreach(function ${functions})
  string(APPEND stub ".globl ${function}\n.type ${function}, %function\n${function}:\n")
endforeach()
file(CONFIGURE OUTPUT libc_names.S CONTENT "${stub}" @ONLY)
add_library(cap_libc SHARED ${CMAKE_CURRENT_BINARY_DIR}/libc_names.S)
target_link_options(cap_libc PRIVATE -nostdlib -Wl,-soname,libc.so.6)
set_target_properties(cap_libc PROPERTIES NO_SONAME ON LINKER_LANGUAGE C)

function(add_guest target output soname table symbols)
  get_filename_component(name ${symbols} NAME_WE)
  set(asm ${CMAKE_CURRENT_BINARY_DIR}/forwarders_${name}.S)
  set(header ${CMAKE_CURRENT_BINARY_DIR}/symbols_${name}.h)
  add_custom_command(
    OUTPUT ${asm} ${header}
    COMMAND Python::Interpreter ${CMAKE_CURRENT_SOURCE_DIR}/generate.py
            --symbols ${CMAKE_CURRENT_SOURCE_DIR}/${symbols} --hooks ${CMAKE_CURRENT_SOURCE_DIR}/${table}
            --asm ${asm} --header ${header}
    DEPENDS generate.py ${table} ${symbols}
    VERBATIM)
  get_target_property(accounting region SOURCES)
  add_library(${target} SHARED ${ARGN} ${accounting} ${asm} ${header})
  target_include_directories(${target} PRIVATE include src ${CMAKE_CURRENT_BINARY_DIR})
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:C>:${guest_options}>)
  target_link_options(${target} PRIVATE ${guest_links} -nodefaultlibs -Wl,-soname,${soname})
  # By its path alone: CMake would add a RUNPATH for a library.
  target_link_libraries(${target} PRIVATE warnings -Wl,$<TARGET_FILE:cap_libc>)
  add_dependencies(${target} cap_libc)
  # The accounting as one translation unit, as in `region` and for the same reason.
  set_source_files_properties(${accounting} PROPERTIES UNITY_GROUP accounting)
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${output} PREFIX "" SUFFIX ".so" NO_SONAME ON
                                             UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  if(CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64")
    target_compile_options(${target} PRIVATE -mno-outline-atomics)
  endif()
  if(SKBUILD)
    install(TARGETS ${target} DESTINATION gpuportion/lib)
  endif()
endfunction()

set(common_sources src/policy_path.c src/say.c src/session.c src/slots.c)

add_guest(cap_mem libcap_mem libcuda.so.1 hooks.def symbols/cuda.txt
  ${common_sources} src/slots_cuda.c src/admit.c src/arrays.c src/async.c src/blocks.c src/contexts.c src/devices.c
  src/endpoints.c src/graphs.c src/init.c src/context_limits.c src/linear.c src/lock.c src/multicast.c src/pools.c src/procaddress.c src/report.c src/sizes.c src/vmm.c)
add_guest(cap_nvml libcap_nvml libnvidia-ml.so.1 nvml.def symbols/nvml.txt
  ${common_sources} src/slots_nvml.c src/nvml_memory.c src/nvml_processes.c src/nvml_samples.c)

# The other name, "libcuda.so": see alias.c. $ORIGIN is for musl, which does not know a preloaded object by its SONAME.
add_library(cap_alias SHARED src/alias.c)
target_compile_options(cap_alias PRIVATE -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables)
target_link_options(cap_alias PRIVATE -nostdlib -Wl,-z,defs -Wl,-z,now -Wl,-z,relro -Wl,-z,noexecstack -Wl,-z,nodelete
  -Wl,--no-as-needed -Wl,--enable-new-dtags -Wl,-soname,libcuda.so)
target_link_libraries(cap_alias PRIVATE cap_mem warnings)
set_target_properties(cap_alias PROPERTIES OUTPUT_NAME libcap_alias PREFIX "" SUFFIX ".so" NO_SONAME ON
  BUILD_RPATH "$ORIGIN" INSTALL_RPATH "$ORIGIN" BUILD_WITH_INSTALL_RPATH ON)
if(SKBUILD)
  install(TARGETS cap_alias DESTINATION gpuportion/lib)
endif()
include(tests.cmake)
