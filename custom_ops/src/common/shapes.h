// Checks of inputs against the operator table: one call per input, one text per mistake.
#pragma once

#include <string>

#include "ort.h"

namespace allmem {

// Throws unless `input` has this element type and shape; -1 accepts any size. `meaning` writes the
// wanted shape in the words of the operator table.
void check_input(const char* op, const InputTensor& input, ONNXTensorElementDataType element,
                 const Shape& wanted, const char* meaning);

// The one number of the input `position`, which must be at least 0 and leave room for the piece.
int64_t read_position(const char* op, const InputTensor& input, int64_t time);

}  // namespace allmem
