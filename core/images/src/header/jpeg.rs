//! The header of a JPEG file (ITU T.81; Exif 2.3), and whether its scans end.

use super::{Header, invalid, orientation};
use crate::Source;
use std::io::{self, ErrorKind};

/// Reads segments up to the first scan, and looks for the end of the scans.
pub(super) fn jpeg(source: &mut impl Source, header: &mut Header) -> io::Result<()> {
    let mut at = 2;
    loop {
        let [first, marker] = source.array(at)?;
        if first != 0xff {
            // Decoders pass over what lies between segments.
            at += 1;
            continue;
        }
        match marker {
            // Fill bytes, and markers without a segment.
            0xff => at += 1,
            0x01 | 0xd0..=0xd8 => at += 2,
            0xd9 => return invalid("it ends before its image begins"),
            // Start of scan.
            0xda => break,
            _ => {
                let length = u16::from_be_bytes(source.array(at + 2)?);
                let content = usize::from(length.max(2) - 2);
                match marker {
                    // Start of frame; its neighbours are tables.
                    0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                        let [_, h1, h0, w1, w0, components]: [u8; 6] = source.array(at + 4)?;
                        header.stored = [u16::from_be_bytes([h1, h0]).into(), u16::from_be_bytes([w1, w0]).into()];
                        header.grey = components == 1;
                    }
                    // APP1. Some files have two: the one with Exif data counts.
                    0xe1 if source.array(at + 4).is_ok_and(|prefix: [u8; 6]| prefix == *b"Exif\0\0") => {
                        header.orientation = orientation(&source.bytes(at + 4, content)?);
                    }
                    _ => {}
                }
                at += 2 + u64::from(length.max(2));
            }
        }
    }
    if ends_with_marker(source, at)? { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// Whether the scans that begin at `start` have an end: in them, 0xff 0xd9 stands for nothing else. Looked for from the end of
/// the file, where it nearly always is.
fn ends_with_marker(source: &mut impl Source, start: u64) -> io::Result<bool> {
    const WINDOW: u64 = 4096;
    let mut end = source.length();
    while end > start + 1 {
        let from = start.max(end.saturating_sub(WINDOW));
        let bytes = source.bytes(from, (end - from) as usize)?;
        if bytes.windows(2).any(|pair| pair == [0xff, 0xd9]) {
            return Ok(true);
        }
        // The next window overlaps by one byte.
        end = if from == start { start } else { from + 1 };
    }
    Ok(false)
}
