// A place in a running function, on a stack of its own: saved and gone on with.
#pragma once

#include <stddef.h>
#include <string.h>

// By hand where possible: swapcontext asks the kernel to keep signal masks, at every switch.
#if defined(__x86_64__) && !defined(ALLMEM_SHIM_UCONTEXT)
#define ALLMEM_HAND_SWITCH 1
#else
#define ALLMEM_HAND_SWITCH 0
#include <ucontext.h>
#endif

namespace allmem {
namespace shim {
namespace {

#if ALLMEM_HAND_SWITCH
// Saves what a call must preserve on this stack, leaves its address in *save, goes on at `load`.
extern "C" void allmem_shim_switch(void** save, void* load);
asm(R"(
.text
.globl allmem_shim_switch
.hidden allmem_shim_switch
.type allmem_shim_switch, @function
allmem_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size allmem_shim_switch, .-allmem_shim_switch
)");
using Context = void*;
#else
using Context = ucontext_t;
#endif

inline void switch_context(Context& save, Context& load) {
#if ALLMEM_HAND_SWITCH
  allmem_shim_switch(&save, load);
#else
  swapcontext(&save, &load);
#endif
}

// A context that calls `run`, which never returns, when it is first gone on with.
inline void begin_context(Context& context, char* stack, size_t bytes, void (*run)()) {
#if ALLMEM_HAND_SWITCH
  // Six registers, the address to return to, and a caller of that, which is never returned to.
  // A function expects the stack 8 past a multiple of 16 at its first instruction.
  void** const top = reinterpret_cast<void**>(stack + bytes - 32);
  memset(top - 6, 0, 8 * sizeof(void*));
  top[0] = reinterpret_cast<void*>(run);
  context = top - 6;
#else
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = bytes;
  makecontext(&context, run, 0);
#endif
}

}  // namespace
}  // namespace shim
}  // namespace allmem
