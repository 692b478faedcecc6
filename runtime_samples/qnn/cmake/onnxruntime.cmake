# The interface target dq_onnxruntime: the C header to compile with and libonnxruntime.so to link.
add_library(dq_onnxruntime INTERFACE)

# The table of functions only grows: a program built with these headers runs with this library and every later one.
set(release_version 1.24.4)
set(release_sha256_x64 3a211fbea252c1e66290658f1b735b772056149f28321e71c308942cdb54b747)
set(release_sha256_aarch64 866109a9248d057671a039b9d725be4bd86888e3754140e6701ec621be9d4d7e)

# Sets `folder` to the unpacked release, with include/ and lib/.
function(download_release)
  set(machine x64)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    set(machine aarch64)
  endif()
  if(POLICY CMP0135)
    cmake_policy(SET CMP0135 NEW)  # files have the time of their extraction
  endif()
  include(FetchContent)
  FetchContent_Declare(onnxruntime_release
    URL https://github.com/microsoft/onnxruntime/releases/download/v${release_version}/onnxruntime-linux-${machine}-${release_version}.tgz
    URL_HASH SHA256=${release_sha256_${machine}})
  FetchContent_MakeAvailable(onnxruntime_release)
  set(folder ${onnxruntime_release_SOURCE_DIR} PARENT_SCOPE)
endfunction()

if(DQ_ONNXRUNTIME STREQUAL "wheel")
  execute_process(
    COMMAND ${DQ_PYTHON} ${CMAKE_CURRENT_LIST_DIR}/wheel_library.py
    RESULT_VARIABLE failed OUTPUT_VARIABLE wheel ERROR_VARIABLE reason OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(failed)
    message(FATAL_ERROR "${DQ_PYTHON} has no onnxruntime to link with; name one that has by -DDQ_PYTHON=...\n${reason}")
  endif()
  # The wheel's file has no name that the loader looks for.
  set(library ${CMAKE_BINARY_DIR}/onnxruntime/libonnxruntime.so.1)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/onnxruntime)
  file(CREATE_LINK ${wheel} ${library} SYMBOLIC)
  set(headers ${DQ_ONNXRUNTIME_HEADERS})
  if(NOT headers)
    download_release()
    set(headers ${folder}/include)
  endif()
else()
  set(folder ${DQ_ONNXRUNTIME})
  if(DQ_ONNXRUNTIME STREQUAL "release")
    download_release()
  endif()
  # An AAR has headers/ and jni/, a release include/ and lib/.
  set(headers ${folder}/include)
  set(library ${folder}/lib/libonnxruntime.so)
  if(ANDROID)
    set(headers ${folder}/headers)
    set(library ${folder}/jni/${ANDROID_ABI}/libonnxruntime.so)
  endif()
endif()

foreach(file ${headers}/onnxruntime_c_api.h ${library})
  if(NOT EXISTS ${file})
    message(FATAL_ERROR "there is no ${file}; name an unpacked release of ONNX Runtime, or for Android its unpacked AAR, by -DDQ_ONNXRUNTIME=...")
  endif()
endforeach()
# SYSTEM: their warnings are not ours.
target_include_directories(dq_onnxruntime SYSTEM INTERFACE ${headers})
target_link_libraries(dq_onnxruntime INTERFACE ${library})
if(NOT ANDROID)  # there LD_LIBRARY_PATH says it, or the app's folder of libraries
  get_filename_component(place ${library} DIRECTORY)
  target_link_options(dq_onnxruntime INTERFACE -Wl,-rpath,${place})
endif()
