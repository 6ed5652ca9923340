"""Internal tools: shapes, arguments, arrays, names and lowering."""
