//! Uploads that nobody waits for.
//!
//! Out of ordinary memory the driver copies while the host waits. So numbers first go into pinned memory, from where the
//! GPU fetches them when its stream gets there. This memory is a ring of a few blocks: uploads fill one after another, and
//! a block is filled anew once the copies out of it are done. The host waits only if it is a whole ring ahead of the GPU.

use crate::cuda::Gpu;
use crate::cuda::device::kernels::check;
use cudarc::driver::sys::{CUdeviceptr, CUevent, CUevent_flags, CUresult};
use cudarc::driver::{CudaDevice, CudaSlice, DevicePtrMut, DeviceRepr, DeviceSlice, DriverError, result, sys};
use dfdx::prelude::CudaError;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks of a GPU at most, and bytes of each: a batch of images fits one or two, and no more than 32 MiB are ever pinned.
const BLOCKS: usize = 8;
const BYTES: usize = 4 << 20;

/// Uploads begin at a multiple of this many bytes, as allocations of the driver do. The size of a block is one, too.
const ALIGNMENT: usize = 256;

/// The pinned memory of a GPU, which uploads of all threads go through.
pub(crate) struct Staging {
    ring: Mutex<Ring>,
    driver: Arc<CudaDevice>,
}

struct Ring {
    /// Blocks at most, and bytes of each.
    most: usize,
    bytes: usize,
    /// The block that is being filled.
    current: Option<Block>,
    /// Blocks that the GPU still copies from, the oldest first.
    full: VecDeque<Block>,
    /// Whether the driver has once refused to pin more.
    refused: bool,
}

/// A block of pinned memory.
struct Block {
    start: *mut u8,
    used: usize,
    /// When the last copy out of it is done.
    done: CUevent,
}

// SAFETY: a block alone owns its memory and its event, which threads may use by turns once they are bound to the device.
#[allow(unsafe_code)]
unsafe impl Send for Block {}

impl Block {
    /// Pins `bytes` bytes. The calling thread is bound to the device.
    fn new(bytes: usize) -> Result<Self, DriverError> {
        let done = result::event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        let mut block = Self { start: std::ptr::null_mut(), used: 0, done };
        let mut start = std::ptr::null_mut();
        // SAFETY: the driver writes one pointer.
        #[allow(unsafe_code)]
        unsafe {
            sys::cuMemHostAlloc(&mut start, bytes, 0).result()?;
        }
        block.start = start.cast();
        Ok(block)
    }

    /// Whether all copies out of it are done.
    fn is_free(&self) -> Result<bool, DriverError> {
        // SAFETY: the event lives as long as the block.
        #[allow(unsafe_code)]
        match unsafe { sys::cuEventQuery(self.done) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            answer => answer.result().map(|()| true),
        }
    }

    /// Waits until all copies out of it are done.
    fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: the event lives as long as the block.
        #[allow(unsafe_code)]
        unsafe { sys::cuEventSynchronize(self.done) }.result()
    }
}

impl Drop for Block {
    /// What was pinned is given back, once the GPU has read it. An error here would be the device's, which the next
    /// operation reports.
    fn drop(&mut self) {
        let _ = self.wait();
        // SAFETY: event and memory are the block's own, and no copy reads them any more.
        #[allow(unsafe_code)]
        unsafe {
            let _ = result::event::destroy(self.done);
            if !self.start.is_null() {
                let _ = sys::cuMemFreeHost(self.start.cast()).result();
            }
        }
    }
}

impl Ring {
    /// A block that has room, `None` if the driver pins no memory at all. The calling thread is bound to the device.
    fn block(&mut self) -> Result<Option<&mut Block>, DriverError> {
        if self.current.as_ref().is_none_or(|block| block.used == self.bytes) {
            self.full.extend(self.current.take());
            self.current = self.next()?;
        }
        Ok(self.current.as_mut())
    }

    /// An empty block: the oldest if it is free, a new one if there may be more, or the oldest once it is free.
    fn next(&mut self) -> Result<Option<Block>, DriverError> {
        let is_free = self.full.front().map_or(Ok(false), Block::is_free)?;
        if !is_free && self.full.len() < self.most && !self.refused {
            match Block::new(self.bytes) {
                Ok(block) => return Ok(Some(block)),
                Err(_) => self.refused = true,
            }
        }
        let Some(mut oldest) = self.full.pop_front() else { return Ok(None) };
        oldest.wait()?;
        oldest.used = 0;
        Ok(Some(oldest))
    }
}

impl Staging {
    /// Pins nothing yet: each block comes when it is needed.
    pub(crate) fn new(driver: Arc<CudaDevice>) -> Self {
        Self::with_blocks(driver, BLOCKS, BYTES)
    }

    fn with_blocks(driver: Arc<CudaDevice>, most: usize, bytes: usize) -> Self {
        let ring = Ring { most, bytes, current: None, full: VecDeque::new(), refused: false };
        Self { ring: Mutex::new(ring), driver }
    }

    /// Copies `data` to `to`, of equal length: what is asked of the GPU from now on finds it there.
    fn upload<T: DeviceRepr + Copy>(&self, data: &[T], to: &mut CudaSlice<T>) -> Result<(), CudaError> {
        check(to.len() == data.len())?;
        self.driver.bind_to_thread()?;
        let (from, bytes, at) = (data.as_ptr().cast::<u8>(), size_of_val(data), *to.device_ptr_mut());
        let mut sent = 0;
        while sent < bytes {
            // Locked for one piece at a time, so that a few numbers need not wait for all pieces of many.
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            let most = ring.bytes;
            let Some(block) = ring.block()? else {
                drop(ring);
                return Ok(self.driver.htod_sync_copy_into(data, to)?);
            };
            let piece = (bytes - sent).min(most - block.used);
            // SAFETY: `sent + piece` is at most the size of both `data` and `to`, and `used + piece` that of the block.
            // Copies of the bytes stay in the block until the event says that the GPU has them, and `to` is freed in the
            // order of the stream, after the copy.
            #[allow(unsafe_code)]
            unsafe {
                let pinned = block.start.add(block.used);
                std::ptr::copy_nonoverlapping(from.add(sent), pinned, piece);
                block.used += piece.next_multiple_of(ALIGNMENT);
                let stream = *self.driver.cu_stream();
                sys::cuMemcpyHtoDAsync_v2(at + sent as CUdeviceptr, pinned.cast(), piece, stream).result()?;
                result::event::record(block.done, stream)?;
            }
            sent += piece;
        }
        Ok(())
    }
}

impl Drop for Staging {
    /// The blocks need the device when they go. Those of an open [`Gpu`] never go, nor does it: the system takes them back
    /// at the end of the process.
    fn drop(&mut self) {
        let _ = self.driver.bind_to_thread();
    }
}

impl Gpu {
    /// Copies numbers to `to`, of equal length. The host goes on at once: what is asked of the GPU from now on finds
    /// them there.
    pub(crate) fn send<T: DeviceRepr + Copy>(&self, data: &[T], to: &mut CudaSlice<T>) -> Result<(), CudaError> {
        self.staging.upload(data, to)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::{ALIGNMENT, Staging};
    use cudarc::driver::CudaSlice;

    const BYTES: usize = 4 * ALIGNMENT;

    /// Runs `body` with a ring of `most` blocks of `bytes` bytes on the first GPU, if there is one.
    fn with_ring(most: usize, bytes: usize, body: impl Fn(&Staging)) {
        match crate::cuda::open(0) {
            Ok(gpu) => body(&Staging::with_blocks(gpu.driver.clone(), most, bytes)),
            #[allow(clippy::print_stdout, reason = "a test that skips says so")]
            Err(error) => println!("skipped: {error}"),
        }
    }

    fn sent(staging: &Staging, data: &[u32]) -> CudaSlice<u32> {
        let mut there = staging.driver.alloc_zeros(data.len()).unwrap();
        staging.upload(data, &mut there).unwrap();
        there
    }

    fn blocks(staging: &Staging) -> usize {
        let ring = staging.ring.lock().unwrap();
        ring.full.len() + usize::from(ring.current.is_some())
    }

    /// `len` numbers that no other upload has.
    fn numbers(len: usize, which: u32) -> Vec<u32> {
        (0..len as u32).map(|i| which << 16 | i).collect()
    }

    #[test]
    fn uploads_of_every_size_arrive_whole() {
        with_ring(3, BYTES, |staging| {
            let uploads: Vec<Vec<u32>> = [0, 1, 64, 65, 255, 256, 257, 1, 769, 5000, 3, 256]
                .iter()
                .zip(1..)
                .map(|(&len, which)| numbers(len, which))
                .collect();
            let there: Vec<_> = uploads.iter().map(|data| sent(staging, data)).collect();
            for (data, there) in uploads.iter().zip(&there) {
                assert_eq!(&staging.driver.dtoh_sync_copy(there).unwrap(), data);
            }
            assert!(blocks(staging) <= 3, "{}", blocks(staging));
        });
    }

    #[test]
    fn small_uploads_share_a_block() {
        with_ring(3, BYTES, |staging| {
            for which in 0..4 {
                sent(staging, &[which]);
            }
            assert_eq!(blocks(staging), 1);
        });
    }

    #[test]
    fn threads_may_upload_at_once() {
        with_ring(2, BYTES, |staging| {
            std::thread::scope(|scope| {
                for thread in 1..=4 {
                    scope.spawn(move || {
                        for round in 0..20 {
                            let data = numbers(100 * round as usize + 1, thread * 32 + round);
                            let there = sent(staging, &data);
                            assert_eq!(staging.driver.dtoh_sync_copy(&there).unwrap(), data);
                        }
                    });
                }
            });
            assert!(blocks(staging) <= 2, "{}", blocks(staging));
        });
    }

    #[test]
    fn uploads_arrive_where_no_memory_can_be_pinned() {
        // More bytes than there are addresses.
        with_ring(3, 1 << 60, |staging| {
            for data in [numbers(1000, 1), numbers(1, 2)] {
                assert_eq!(staging.driver.dtoh_sync_copy(&sent(staging, &data)).unwrap(), data);
            }
            assert_eq!(blocks(staging), 0);
        });
    }

    #[test]
    fn lengths_must_be_equal() {
        with_ring(1, BYTES, |staging| {
            let mut there = staging.driver.alloc_zeros(2).unwrap();
            assert!(staging.upload(&[1u32; 3], &mut there).is_err());
        });
    }
}
