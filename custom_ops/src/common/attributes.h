// Reading a node's attributes: defaults, ranges, and text that says what is wrong.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "ort.h"
#include "per_head.h"

namespace allmem {

// ONNX Runtime checks no attribute of a custom operator, so every one is checked here.
class Attributes {
 public:
  Attributes(const OrtApi& api, const OrtKernelInfo* info, const char* op)
      : api_(api), info_(info), operator_(op) {}

  // All throw InvalidArgument naming operator, attribute and value. No default: required.
  int64_t integer(const char* name, std::optional<int64_t> standard, int64_t minimum,
                  int64_t maximum) const;
  // An integer for all heads, or integers, one for each; required.
  PerHead per_head(const char* name, int64_t minimum, int64_t maximum) const;
  float number(const char* name, std::optional<float> standard, float minimum,
               float maximum) const;
  // Returns the index of the value among `choices`; the first choice is the default.
  int choice(const char* name, std::initializer_list<const char*> choices) const;

 private:
  enum class Kind { kMissing, kInteger, kIntegers, kNumber, kText };
  Kind kind_of(const char* name) const;
  [[noreturn]] void wrong_kind(const char* name, const char* wanted) const;
  std::string read_text(const char* name) const;

  const OrtApi& api_;
  const OrtKernelInfo* info_;
  const char* operator_;
};

}  // namespace allmem
