"""Memory for scratch in kernels, and reshaping, as code: what is asked of Numba's runtime.

Arrays that a kernel makes are counted by references, the count first in what describes them: the
count, the address of a destructor, what it is given, the address of the data, its size, and an
allocator (none here: `malloc` and `free`). As kernels return no arrays, this never meets Numba's.

Numba lets only contiguous arrays be reshaped. Where one is in C order, its new strides follow from
the new shape alone; of others the function says, as Numba's may, that it cannot without a copy.
"""

FREE = "call void @free(ptr %described)"

MEMORY = f"""
declare noalias ptr @malloc(i64)
declare void @free(ptr)

define linkonce_odr ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %asked) {{
  %wide = zext i32 %asked to i64
  %small = icmp ult i64 %wide, 16
  %align = select i1 %small, i64 16, i64 %wide
  %room = add i64 %align, 48
  %whole = add i64 %size, %room
  %fits = icmp uge i64 %whole, %size
  br i1 %fits, label %try, label %none
try:
  %described = call ptr @malloc(i64 %whole)
  %is_null = icmp eq ptr %described, null
  br i1 %is_null, label %none, label %got
none:
  ret ptr null
got:
  %begin = ptrtoint ptr %described to i64
  %least = add i64 %begin, 47
  %past = add i64 %least, %align
  %below = sub i64 0, %align
  %place = and i64 %past, %below
  %data = inttoptr i64 %place to ptr
  store i64 1, ptr %described
  %destructor_at = getelementptr i64, ptr %described, i64 1
  store ptr null, ptr %destructor_at
  %given_at = getelementptr i64, ptr %described, i64 2
  store ptr null, ptr %given_at
  %data_at = getelementptr i64, ptr %described, i64 3
  store ptr %data, ptr %data_at
  %size_at = getelementptr i64, ptr %described, i64 4
  store i64 %size, ptr %size_at
  %allocator_at = getelementptr i64, ptr %described, i64 5
  store ptr null, ptr %allocator_at
  ret ptr %described
}}

define linkonce_odr ptr @NRT_MemInfo_alloc(i64 %size) {{
  %described = call ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 16)
  ret ptr %described
}}

define linkonce_odr ptr @NRT_MemInfo_data_fast(ptr %described) {{
  %data_at = getelementptr i64, ptr %described, i64 3
  %data = load ptr, ptr %data_at
  ret ptr %data
}}

define linkonce_odr void @NRT_MemInfo_call_dtor(ptr %described) {{
  {FREE}
  ret void
}}

define linkonce_odr void @NRT_incref(ptr %described) {{
  %is_null = icmp eq ptr %described, null
  br i1 %is_null, label %done, label %count
count:
  %before = atomicrmw add ptr %described, i64 1 monotonic
  br label %done
done:
  ret void
}}

define linkonce_odr void @NRT_decref(ptr %described) {{
  %is_null = icmp eq ptr %described, null
  br i1 %is_null, label %done, label %count
count:
  %before = atomicrmw sub ptr %described, i64 1 acq_rel
  %was_last = icmp eq i64 %before, 1
  br i1 %was_last, label %last, label %done
last:
  {FREE}
  br label %done
done:
  ret void
}}

define linkonce_odr i32 @numba_attempt_nocopy_reshape(
  i64 %n, ptr %shape, ptr %strides, i64 %new_n, ptr %new_shape, ptr %new_strides, i64 %item,
  i32 %fortran
) {{
entry:
  br label %old
old:
  %old_left = phi i64 [ %n, %entry ], [ %i, %look ]
  %expected = phi i64 [ %item, %entry ], [ %larger, %look ]
  %differs = phi i1 [ false, %entry ], [ %any_differs, %look ]
  %seen = icmp sle i64 %old_left, 0
  br i1 %seen, label %judge, label %look
look:
  %i = sub i64 %old_left, 1
  %old_length_at = getelementptr i64, ptr %shape, i64 %i
  %old_length = load i64, ptr %old_length_at
  %old_stride_at = getelementptr i64, ptr %strides, i64 %i
  %old_stride = load i64, ptr %old_stride_at
  %is_other = icmp ne i64 %old_stride, %expected
  %is_long = icmp ne i64 %old_length, 1
  %counts = and i1 %is_other, %is_long
  %any_differs = or i1 %differs, %counts
  %larger = mul i64 %expected, %old_length
  br label %old
judge:
  %has_items = icmp ne i64 %expected, 0
  %refused = and i1 %differs, %has_items
  br i1 %refused, label %cannot, label %next
cannot:
  ret i32 0
next:
  %left = phi i64 [ %new_n, %judge ], [ %k, %write ]
  %stride = phi i64 [ %item, %judge ], [ %wider, %write ]
  %done = icmp sle i64 %left, 0
  br i1 %done, label %can, label %write
write:
  %k = sub i64 %left, 1
  %stride_at = getelementptr i64, ptr %new_strides, i64 %k
  store i64 %stride, ptr %stride_at
  %length_at = getelementptr i64, ptr %new_shape, i64 %k
  %length = load i64, ptr %length_at
  %wider = mul i64 %stride, %length
  br label %next
can:
  ret i32 1
}}
"""
