# Finds the C headers of ONNX Runtime (API level 17) and sets ORT_HEADERS to their folder.
#
# ONNX Runtime's Python wheels ship no headers. In this order: the folder ORT_INCLUDE_DIR (a CMake
# or an environment variable), a cache kept between builds, a download with pip of a small Python
# package that carries them. Nothing of it is committed or shipped.

set(ALLMEM_HEADERS_PACKAGE "amd-quark==0.13")
set(ALLMEM_HEADERS_SHA256 "3b3e58a4cbbcff20d27815b641aa4de4d698efde3c782306cb4a6a05bcf55c8c")
set(ALLMEM_HEADERS_INNER
    "quark/onnx/operators/custom_ops/include/onnxruntime-1.17.0/onnxruntime/core/session")

function(allmem_cache_folder result)
  if(DEFINED ENV{ALLMEM_CACHE_DIR})
    set(folder "$ENV{ALLMEM_CACHE_DIR}")
  elseif(DEFINED ENV{XDG_CACHE_HOME})
    set(folder "$ENV{XDG_CACHE_HOME}/allmem")
  elseif(WIN32 AND DEFINED ENV{LOCALAPPDATA})
    set(folder "$ENV{LOCALAPPDATA}/allmem")
  elseif(DEFINED ENV{HOME})
    set(folder "$ENV{HOME}/.cache/allmem")
  else()
    set(folder "${CMAKE_BINARY_DIR}")
  endif()
  file(TO_CMAKE_PATH "${folder}" folder)
  set(${result} "${folder}/ort-headers-17-${ALLMEM_HEADERS_SHA256}" PARENT_SCOPE)
endfunction()

function(allmem_download_headers folder)
  set(remedy
      "Set ORT_INCLUDE_DIR to a folder that holds onnxruntime_c_api.h of ONNX Runtime 1.17 or newer "
      "(it is in the release archives of ONNX Runtime), or let pip reach a package index.")
  string(CONCAT remedy ${remedy})
  find_package(Python3 COMPONENTS Interpreter)
  if(DEFINED Python_EXECUTABLE AND NOT Python3_Interpreter_FOUND)
    set(Python3_EXECUTABLE "${Python_EXECUTABLE}")
  elseif(NOT Python3_Interpreter_FOUND)
    message(FATAL_ERROR "The ONNX Runtime headers need pip, and no Python was found. ${remedy}")
  endif()
  # A folder of its own, so that two builds at once do not disturb each other.
  string(RANDOM LENGTH 12 suffix)
  set(work "${CMAKE_BINARY_DIR}/ort-headers-${suffix}")
  file(MAKE_DIRECTORY "${work}")
  message(STATUS "Fetching the ONNX Runtime headers (${ALLMEM_HEADERS_PACKAGE})")
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -m pip --disable-pip-version-check download --quiet --no-deps
            --only-binary :all: --ignore-requires-python --dest "${work}"
            "${ALLMEM_HEADERS_PACKAGE}"
    RESULT_VARIABLE failed
    ERROR_VARIABLE details)
  file(GLOB wheel "${work}/*.whl")
  if(failed OR NOT wheel)
    message(FATAL_ERROR "pip could not download ${ALLMEM_HEADERS_PACKAGE}, which carries the ONNX "
                        "Runtime headers:\n${details}\n${remedy}")
  endif()
  file(SHA256 "${wheel}" digest)
  if(NOT digest STREQUAL ALLMEM_HEADERS_SHA256)
    message(FATAL_ERROR "${wheel} has SHA-256 ${digest}, not ${ALLMEM_HEADERS_SHA256}: it is not "
                        "the file this build was made for. ${remedy}")
  endif()
  file(ARCHIVE_EXTRACT INPUT "${wheel}" DESTINATION "${work}/all"
       PATTERNS "${ALLMEM_HEADERS_INNER}/onnxruntime_c_api.h")
  get_filename_component(parent "${folder}" DIRECTORY)
  file(MAKE_DIRECTORY "${parent}")
  if(NOT EXISTS "${folder}")
    file(RENAME "${work}/all/${ALLMEM_HEADERS_INNER}" "${folder}")
  endif()
  file(REMOVE_RECURSE "${work}")
endfunction()

if(NOT ORT_INCLUDE_DIR AND DEFINED ENV{ORT_INCLUDE_DIR})
  set(ORT_INCLUDE_DIR "$ENV{ORT_INCLUDE_DIR}")
endif()
if(ORT_INCLUDE_DIR)
  set(ORT_HEADERS "${ORT_INCLUDE_DIR}")
else()
  allmem_cache_folder(ORT_HEADERS)
  if(NOT EXISTS "${ORT_HEADERS}/onnxruntime_c_api.h")
    allmem_download_headers("${ORT_HEADERS}")
  endif()
endif()
if(NOT EXISTS "${ORT_HEADERS}/onnxruntime_c_api.h")
  message(FATAL_ERROR "ORT_INCLUDE_DIR is ${ORT_HEADERS}, which holds no onnxruntime_c_api.h")
endif()
