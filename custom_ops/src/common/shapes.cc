// Checks of inputs against the operator table.
#include "shapes.h"

namespace allmem {

void check_input(const char* op, const InputTensor& input, ONNXTensorElementDataType element,
                 const Shape& wanted, const char* meaning) {
  if (input.element != element) {
    throw InvalidArgument(text(op, ": input ", input.name, " is ", element_text(input.element),
                               "; it must be ", element_text(element)));
  }
  bool same = input.shape.size() == wanted.size();
  for (size_t i = 0; same && i < wanted.size(); ++i) {
    same = wanted[i] < 0 || input.shape[i] == wanted[i];
  }
  if (!same) {
    std::string sizes = shape_text(wanted);
    for (size_t at; (at = sizes.find("-1")) != std::string::npos;) sizes.replace(at, 2, "?");
    throw InvalidArgument(text(op, ": input ", input.name, " has shape ", shape_text(input.shape),
                               "; it must be ", meaning, " = ", sizes));
  }
}

int64_t read_position(const char* op, const InputTensor& input, int64_t time) {
  check_input(op, input, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {1}, "[1]");
  const int64_t position = *static_cast<const int64_t*>(input.data);
  constexpr int64_t kLast = int64_t{1} << 62;  // sums of a position and a size cannot overflow
  if (position < 0 || position > kLast - time) {
    throw InvalidArgument(text(op, ": input position is ", position, " for a piece of ", time,
                               " tokens; it must be from 0 to 2^62 - ", time));
  }
  return position;
}

}  // namespace allmem
