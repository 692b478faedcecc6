# The interface target dq_executorch: what executorch_network.cpp needs to compile and dq-run to link.
add_library(dq_executorch INTERFACE)
set(version unknown)

if(DQ_EXECUTORCH STREQUAL "wheel")
  execute_process(
    COMMAND ${DQ_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/wheel_paths.py
    RESULT_VARIABLE failed OUTPUT_VARIABLE wheel ERROR_VARIABLE reason OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(failed)
    message(FATAL_ERROR "${DQ_PYTHON} has no executorch 1.5 to link with; name one that has by -DDQ_PYTHON=...\n${reason}")
  endif()
  list(POP_FRONT wheel version include)
  # SYSTEM: their warnings are not ours.
  target_include_directories(dq_executorch SYSTEM INTERFACE
    ${include} ${include}/executorch/runtime/core/portable_type/c10)
  # As the wheel's own libraries were compiled: classes of the tracer have other members without the second.
  target_compile_definitions(dq_executorch INTERFACE C10_USING_CUSTOM_GENERATED_MACROS ET_EVENT_TRACER_ENABLED)
  # Backends and operators register themselves when their library is loaded; nothing refers to them.
  target_link_libraries(dq_executorch INTERFACE -Wl,--no-as-needed ${wheel} -Wl,--as-needed)
  foreach(library ${wheel})
    get_filename_component(folder ${library} DIRECTORY)
    target_link_options(dq_executorch INTERFACE -Wl,-rpath,${folder})
  endforeach()

elseif(EXISTS ${DQ_EXECUTORCH}/tools/cmake)
  # A source tree, 1.5 or later. WRITTEN FROM ITS DOCUMENTATION, NEVER BUILT.
  if(CMAKE_VERSION VERSION_LESS 3.25)
    message(FATAL_ERROR "building ExecuTorch's sources needs CMake 3.25 or later, this is ${CMAKE_VERSION}; install a later one")
  endif()
  set(EXECUTORCH_BUILD_XNNPACK ON CACHE BOOL "")
  set(EXECUTORCH_BUILD_KERNELS_OPTIMIZED ON CACHE BOOL "")     # operators that XNNPACK leaves over
  set(EXECUTORCH_ENABLE_LOGGING ON CACHE BOOL "")              # the reason of a failure goes into our line
  set(EXECUTORCH_ENABLE_PROGRAM_VERIFICATION ON CACHE BOOL "")
  set(EXECUTORCH_BUILD_EXECUTOR_RUNNER OFF CACHE BOOL "")
  add_subdirectory(${DQ_EXECUTORCH} ${CMAKE_BINARY_DIR}/executorch EXCLUDE_FROM_ALL SYSTEM)
  target_link_libraries(dq_executorch INTERFACE executorch executorch::backends executorch::kernels)
  if(EXISTS ${DQ_EXECUTORCH}/version.txt)
    file(STRINGS ${DQ_EXECUTORCH}/version.txt version LIMIT_COUNT 1)
  endif()

else()
  # An install tree. WRITTEN FROM THE DOCUMENTATION, NEVER BUILT. Each exported target says itself that it is linked whole;
  # of the libraries of operators only one may be linked, two would register the same names and stop the program.
  find_package(executorch CONFIG REQUIRED PATHS ${DQ_EXECUTORCH} NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
  set(operators portable_ops_lib)
  if(TARGET optimized_native_cpu_ops_lib)
    set(operators optimized_native_cpu_ops_lib)
  endif()
  foreach(library executorch xnnpack_backend ${operators})
    if(NOT TARGET ${library})
      message(FATAL_ERROR "${DQ_EXECUTORCH} was installed without ${library}; build ExecuTorch with EXECUTORCH_BUILD_XNNPACK=ON")
    endif()
    target_link_libraries(dq_executorch INTERFACE ${library})
  endforeach()
  target_include_directories(dq_executorch SYSTEM INTERFACE ${EXECUTORCH_INCLUDE_DIRS})
  target_compile_definitions(dq_executorch INTERFACE C10_USING_CUSTOM_GENERATED_MACROS)
  if(executorch_VERSION)
    set(version ${executorch_VERSION})
  endif()
endif()

target_compile_definitions(dq_executorch INTERFACE DQ_EXECUTORCH_VERSION="${version}")
