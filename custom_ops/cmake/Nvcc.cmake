# Finds CUDA 13's compiler, turns the language CUDA on, and sets
#   ALLMEM_HAS_CUDA   whether there is a compiler; only with ALLMEM_CUDA=AUTO may there be none
#   ALLMEM_CUDA_NAMES what is built for, in nvcc's words: "sm_86 compute_120"
#   ALLMEM_CUDART     the static runtime, which lets the library load where no CUDA is
#
# In this order: CMAKE_CUDA_COMPILER or CUDACXX, nvcc on the PATH, CUDA_HOME or CUDA_PATH, NVIDIA's
# pip packages beside the Python that builds, /usr/local/cuda.

set(ALLMEM_HAS_CUDA OFF)
set(pip_packages "'nvidia-cuda-nvcc==13.*' 'nvidia-cuda-cccl==13.*'")

if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  if(NOT Python_EXECUTABLE)
    find_program(Python_EXECUTABLE NAMES python3 python)
  endif()
  set(site "")
  if(Python_EXECUTABLE)
    execute_process(
      COMMAND "${Python_EXECUTABLE}" -c "import sysconfig; print(sysconfig.get_path('purelib'))"
      OUTPUT_VARIABLE site OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  find_program(
    ALLMEM_NVCC nvcc
    PATHS "$ENV{CUDA_HOME}/bin" "$ENV{CUDA_PATH}/bin" "${site}/nvidia/cu13/bin" /usr/local/cuda/bin)
  if(ALLMEM_NVCC)
    set(CMAKE_CUDA_COMPILER "${ALLMEM_NVCC}")
  endif()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(ALLMEM_CUDA STREQUAL "AUTO")
    message(STATUS "nvcc was not found: the library is built without CUDA kernels")
    return()
  endif()
  message(FATAL_ERROR "ALLMEM_CUDA is ${ALLMEM_CUDA}, but no working nvcc was found. Either install "
                      "the CUDA 13 toolkit and put its nvcc on the PATH (or name it by CUDACXX), or "
                      "run: pip install ${pip_packages}\n"
                      "Or build without CUDA kernels: ALLMEM_CUDA=OFF.")
endif()
# Turing to Blackwell as machine code, and PTX for the cards between 9.0 and 12.0 and for later ones.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90 120)
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13)
  message(FATAL_ERROR "${CMAKE_CUDA_COMPILER} is of CUDA ${CMAKE_CUDA_COMPILER_VERSION}; the kernels "
                      "need CUDA 13. Name its nvcc by CUDACXX, or run: pip install ${pip_packages}")
endif()
if(CMAKE_CUDA_ARCHITECTURES STREQUAL "native")
  set(CMAKE_CUDA_ARCHITECTURES ${CMAKE_CUDA_ARCHITECTURES_NATIVE})
endif()

set(ALLMEM_CUDA_NAMES "")
foreach(architecture IN LISTS CMAKE_CUDA_ARCHITECTURES)
  if(NOT architecture MATCHES "^([0-9]+[af]?)(-real|-virtual)?$")
    message(FATAL_ERROR "CMAKE_CUDA_ARCHITECTURES is ${CMAKE_CUDA_ARCHITECTURES}; it must list "
                        "compute capabilities such as 86-real, 120-virtual or 120, or be native "
                        "where the card is in this computer.")
  endif()
  if(NOT CMAKE_MATCH_2 STREQUAL "-virtual")
    string(APPEND ALLMEM_CUDA_NAMES " sm_${CMAKE_MATCH_1}")
  endif()
  if(NOT CMAKE_MATCH_2 STREQUAL "-real")
    string(APPEND ALLMEM_CUDA_NAMES " compute_${CMAKE_MATCH_1}")
  endif()
endforeach()
string(STRIP "${ALLMEM_CUDA_NAMES}" ALLMEM_CUDA_NAMES)
message(STATUS "CUDA kernels for ${ALLMEM_CUDA_NAMES}, with ${CMAKE_CUDA_COMPILER} "
               "${CMAKE_CUDA_COMPILER_VERSION}")

# CMake's own FindCUDAToolkit wants the shared runtime too, which the pip packages do not link to.
get_filename_component(nvcc_file "${CMAKE_CUDA_COMPILER}" REALPATH)
get_filename_component(nvcc_folder "${nvcc_file}" DIRECTORY)
find_library(ALLMEM_CUDART cudart_static
             HINTS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} "${nvcc_folder}/../lib64"
                   "${nvcc_folder}/../lib" "${nvcc_folder}/../lib/x64"
             NO_CACHE REQUIRED)
set(ALLMEM_HAS_CUDA ON)
