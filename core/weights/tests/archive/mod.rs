//! Archives as `torch.save` writes them, made by hand.

/// An archive of stored entries.
pub(crate) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let start = file.len() as u32;
        let length = bytes.len() as u32;
        let sizes = [crc32fast::hash(bytes), length, length].map(u32::to_le_bytes).concat();
        let names = [name.len() as u16, 0].map(u16::to_le_bytes).concat();
        file.extend([b"PK\x03\x04".as_slice(), &[0; 10], &sizes, &names, name.as_bytes(), bytes].concat());
        let central = [b"PK\x01\x02".as_slice(), &[0; 12], &sizes, &names, &[0; 10], &start.to_le_bytes()].concat();
        directory.extend([&central, name.as_bytes()].concat());
    }
    let (start, count) = (file.len() as u32, (entries.len() as u16).to_le_bytes());
    let end = [b"PK\x05\x06".as_slice(), &[0; 4], &count, &count].concat();
    let place = [directory.len() as u32, start].map(u32::to_le_bytes).concat();
    [file, directory, end, place, vec![0; 2]].concat()
}
