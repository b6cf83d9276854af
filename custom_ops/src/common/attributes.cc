// Reading a node's attributes.
#include "attributes.h"

#include <cmath>

namespace allmem {

// The interface tells "not there" from "of another kind" by text alone, so every kind is tried.
Attributes::Kind Attributes::kind_of(const char* name) const {
  const auto succeeded = [this](OrtStatus* status) {
    if (status != nullptr) api_.ReleaseStatus(status);
    return status == nullptr;
  };
  int64_t whole;
  if (succeeded(api_.KernelInfoGetAttribute_int64(info_, name, &whole))) return Kind::kInteger;
  float number;
  if (succeeded(api_.KernelInfoGetAttribute_float(info_, name, &number))) return Kind::kNumber;
  size_t size = 0;
  if (succeeded(api_.KernelInfoGetAttribute_string(info_, name, nullptr, &size))) {
    return Kind::kText;
  }
  // Of a kind that is no list the interface gives an empty one.
  size = 0;
  if (succeeded(api_.KernelInfoGetAttributeArray_int64(info_, name, nullptr, &size)) && size > 0) {
    return Kind::kIntegers;
  }
  return Kind::kMissing;
}

void Attributes::wrong_kind(const char* name, const char* wanted) const {
  throw InvalidArgument(text(operator_, ": attribute '", name, "' must be ", wanted));
}

int64_t Attributes::integer(const char* name, std::optional<int64_t> standard, int64_t minimum,
                            int64_t maximum) const {
  const Kind kind = kind_of(name);
  if (kind == Kind::kMissing) {
    if (standard) return *standard;
    throw InvalidArgument(text(operator_, ": attribute '", name, "' is required"));
  }
  if (kind != Kind::kInteger) wrong_kind(name, "an integer");
  int64_t value = 0;
  require(api_, api_.KernelInfoGetAttribute_int64(info_, name, &value));
  if (value < minimum || value > maximum) {
    throw InvalidArgument(text(operator_, ": attribute '", name, "' is ", value,
                               "; it must be from ", minimum, " to ", maximum));
  }
  return value;
}

PerHead Attributes::per_head(const char* name, int64_t minimum, int64_t maximum) const {
  PerHead out{};
  if (kind_of(name) != Kind::kIntegers) {
    const int64_t value = integer(name, {}, minimum, maximum);
    out.set(&value, 1);
    return out;
  }
  int64_t values[PerHead::kMost];
  size_t count = 0;
  require(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, nullptr, &count));
  if (count < 1 || count > static_cast<size_t>(PerHead::kMost)) {
    throw InvalidArgument(text(operator_, ": attribute '", name, "' has ", count,
                               " numbers; it must have 1 to ", PerHead::kMost));
  }
  require(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, values, &count));
  for (size_t i = 0; i < count; ++i) {
    if (values[i] < minimum || values[i] > maximum) {
      throw InvalidArgument(text(operator_, ": attribute '", name, "' has ", values[i], " for head ",
                                 i, "; it must be from ", minimum, " to ", maximum));
    }
  }
  out.set(values, static_cast<int64_t>(count));
  return out;
}

float Attributes::number(const char* name, std::optional<float> standard, float minimum,
                         float maximum) const {
  const Kind kind = kind_of(name);
  if (kind == Kind::kMissing) {
    if (standard) return *standard;
    throw InvalidArgument(text(operator_, ": attribute '", name, "' is required"));
  }
  if (kind != Kind::kNumber) wrong_kind(name, "a float");
  float value = 0.0f;
  require(api_, api_.KernelInfoGetAttribute_float(info_, name, &value));
  if (!std::isfinite(value) || value < minimum || value > maximum) {
    throw InvalidArgument(text(operator_, ": attribute '", name, "' is ", value,
                               "; it must be finite and from ", minimum, " to ", maximum));
  }
  return value;
}

std::string Attributes::read_text(const char* name) const {
  size_t size = 0;
  require(api_, api_.KernelInfoGetAttribute_string(info_, name, nullptr, &size));
  std::string value(size, '\0');
  require(api_, api_.KernelInfoGetAttribute_string(info_, name, value.data(), &size));
  while (!value.empty() && value.back() == '\0') value.pop_back();  // size counts the terminator
  return value;
}

// A text of a graph as it may stand in a message: of one line, and short.
static std::string shown(const std::string& value) {
  constexpr size_t kMost = 40;
  std::string out = value.substr(0, kMost);
  for (char& letter : out) letter = letter < ' ' || letter > '~' ? '?' : letter;
  return value.size() > kMost ? out + "..." : out;
}

int Attributes::choice(const char* name, std::initializer_list<const char*> choices) const {
  const Kind kind = kind_of(name);
  if (kind == Kind::kMissing) return 0;
  if (kind != Kind::kText) wrong_kind(name, "a string");
  const std::string value = read_text(name);
  std::string allowed;
  int index = 0;
  for (const char* candidate : choices) {
    if (value == candidate) return index;
    allowed += (index++ ? ", " : "") + std::string(candidate);
  }
  throw InvalidArgument(
      text(operator_, ": attribute '", name, "' is '", shown(value), "'; allowed: ", allowed));
}

}  // namespace allmem
