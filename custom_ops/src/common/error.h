// The one exception of this library; it never crosses the C interface (see ort.h).
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace allmem {

// What happened, naming the operator, the input or attribute, and the value.
class InvalidArgument : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace allmem
