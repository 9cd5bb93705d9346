//! Arithmetic with broadcasting (NumPy rules: shapes are aligned at the innermost axis; size 1 stretches).
