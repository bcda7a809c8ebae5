//! Keeps the allocator from giving memory back to the kernel between two chunks.
//!
//! glibc returns what is free at the top of a heap when it is more than 128 KiB. A chunk and its copies
//! for a few children are more, so without this every chunk is paged in anew: some 58 page faults for
//! each, and zeroing those pages was a tenth of a relay's CPU time. The limit follows the program: it is
//! twice the largest block that was mapped by itself and freed again (mallopt(3), `M_MMAP_THRESHOLD`). So
//! one such block is taken and freed when the first transport is made.
//!
//! It changes no setting that an environment variable has fixed, and does nothing with other allocators.

use std::hint::black_box;
use std::sync::Once;

/// What one heap may keep free at its top, bytes: the chunks under way on a few dozen links.
const KEPT: usize = 8 << 20;

/// Makes the process keep up to [`KEPT`] bytes free for each of its heaps.
pub(super) fn keep_freed() {
    static DONE: Once = Once::new();
    DONE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(KEPT / 2))));
}
