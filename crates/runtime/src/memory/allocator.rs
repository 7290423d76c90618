//! The allocator of the program.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned};

/// What mimalloc aligns every block to that is at least as large, as C asks of `malloc`.
const ALIGNED: usize = 16;

/// mimalloc, asked for an alignment only where it does not keep that one anyway.
///
/// Its functions that take an alignment use the next larger size of blocks unless a block of the right size happens to be at hand. When every
/// allocation asks for one, as with the crate that wraps it, none ever is for sizes between powers of two.
#[derive(Debug)]
pub struct Allocator;

fn is_kept(size: usize, align: usize) -> bool {
    align <= ALIGNED && align <= size
}

// SAFETY: each function hands on to mimalloc's of the same meaning. What any of them has allocated may be freed and resized by any other,
// and blocks are aligned as asked: by request, or because all blocks of that size are.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: the caller keeps to the contract of `GlobalAlloc`.
        let block = unsafe { if is_kept(size, align) { mi_malloc(size) } else { mi_malloc_aligned(size, align) } };
        block.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as above.
        let block = unsafe { if is_kept(size, align) { mi_zalloc(size) } else { mi_zalloc_aligned(size, align) } };
        block.cast()
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: as above.
        unsafe { mi_free(block.cast()) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: as above.
        let block = unsafe {
            if is_kept(size, align) { mi_realloc(block.cast(), size) } else { mi_realloc_aligned(block.cast(), size, align) }
        };
        block.cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of each size and alignment, several of each so that they come from different places.
    #[test]
    fn blocks_are_aligned_and_keep_what_is_in_them() {
        for align in [1, 2, 4, 8, 16, 32, 64, 128, 4096] {
            for size in [1, 7, 8, 24, 40, 56, 72, 104, 200, 1000, 1100, 5000, 70_000] {
                let layout = Layout::from_size_align(size, align).unwrap();
                let blocks: Vec<*mut u8> = (0..9).map(|_| check(layout)).collect();
                for block in blocks {
                    // SAFETY: it was allocated with this layout.
                    unsafe { Allocator.dealloc(block, Layout::from_size_align(size * 2, align).unwrap()) };
                }
            }
        }
    }

    fn check(layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: blocks are written to within their sizes, and resized with their layouts.
        unsafe {
            let zeroed = Allocator.alloc_zeroed(layout);
            assert!((0..size).all(|at| zeroed.add(at).read() == 0) && zeroed.addr().is_multiple_of(align), "{layout:?}");
            Allocator.dealloc(zeroed, layout);
            let block = Allocator.alloc(layout);
            assert_eq!(block.addr() % align, 0, "{layout:?}");
            block.write_bytes(7, size);
            let block = Allocator.realloc(block, layout, size * 2);
            assert!((0..size).all(|at| block.add(at).read() == 7) && block.addr().is_multiple_of(align), "{layout:?}");
            block
        }
    }
}
