/* Forget one instruction set before the next. */
#undef NS
#undef LANES
#undef TALL
#undef RUN
#undef TARGET
#undef VEC
#undef IVEC
#undef INLINE
