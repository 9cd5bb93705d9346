//! Captions: a text for each image, where a set has some.

/// The longest caption that is read, in bytes.
pub const LONGEST_CAPTION: usize = 1 << 16;

/// A caption from its bytes, without white space around it.
///
/// # Errors
/// Why it is none, behind "the caption".
pub fn caption(bytes: &[u8]) -> Result<String, String> {
    if bytes.len() > LONGEST_CAPTION {
        return Err(format!("has more than {LONGEST_CAPTION} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("is no text in UTF-8: {error}"))?;
    Ok(text.trim_start_matches('\u{feff}').trim().to_owned())
}
