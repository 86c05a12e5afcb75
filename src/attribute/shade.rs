//! Heat maps as pictures that stand in a page: a PNG of one pixel a pair of positions, one colour at sixteen opacities, so
//! that the paper of a light or a dark page shows through. Format: <https://www.w3.org/TR/png-3/>, colour type 3 with four
//! bits a pixel, palette and transparencies.

use ct_codecs::{Base64, Encoder};
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use std::io::Write;

/// Seen on white and on black.
pub(super) const COLOUR: [u8; 3] = [58, 134, 210];
/// Opacities.
const LEVELS: u8 = 16;

/// The step of a share in [0, 1]: of its square root, so that small shares are seen.
fn level(share: f64) -> u8 {
    (share.clamp(0.0, 1.0).sqrt() * f64::from(LEVELS - 1)).round() as u8
}

/// A square picture of shares, `side` a row, as a `data:` address.
pub(super) fn address(side: usize, share: impl Fn(usize, usize) -> f64) -> String {
    let mut rows = Vec::with_capacity(side * (side / 2 + 2));
    for row in 0..side {
        // No filter.
        rows.push(0);
        for pair in (0..side).step_by(2) {
            let second = if pair + 1 < side { level(share(row, pair + 1)) } else { 0 };
            rows.push(level(share(row, pair)) << 4 | second);
        }
    }
    let mut size = [0; 13];
    size[..4].copy_from_slice(&(side as u32).to_be_bytes());
    size[4..8].copy_from_slice(&(side as u32).to_be_bytes());
    (size[8], size[9]) = (4, 3);
    let opacities: Vec<u8> = (0..LEVELS).map(|level| level * 17).collect();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut png, b"IHDR", &size);
    chunk(&mut png, b"PLTE", &COLOUR.repeat(usize::from(LEVELS)));
    chunk(&mut png, b"tRNS", &opacities);
    chunk(&mut png, b"IDAT", &deflated(&rows));
    chunk(&mut png, b"IEND", &[]);
    let text = Base64::encode_to_string(png).unwrap_or_else(|_| unreachable!("a string grows as it must"));
    format!("data:image/png;base64,{text}")
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_else(|_| unreachable!("writing to memory does not fail"))
}

/// Length, kind, content and the CRC of both.
fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], content: &[u8]) {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(content);
    png.extend((content.len() as u32).to_be_bytes());
    png.extend(kind);
    png.extend(content);
    png.extend(crc.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use ct_codecs::Decoder;
    use flate2::read::ZlibDecoder;
    use std::io::Read;

    #[test]
    fn pixels_are_the_square_roots_of_shares() {
        let shares = [[1.0, 0.0, 0.25], [0.5, 0.01, 0.0], [0.2, 0.2, 0.6]];
        let address = address(3, |row, column| shares[row][column]);
        let text = address.strip_prefix("data:image/png;base64,").expect("an address");
        let png = Base64::decode_to_vec(text, None).expect("base64");
        let at = png.windows(4).position(|four| four == b"IDAT").expect("has pixels");
        let length = u32::from_be_bytes(png[at - 4..at].try_into().expect("four")) as usize;
        let mut rows = Vec::new();
        ZlibDecoder::new(&png[at + 4..at + 4 + length]).read_to_end(&mut rows).expect("inflates");
        // sqrt(0.5)·15 = 10.6, sqrt(0.01)·15 = 1.5, sqrt(0.2)·15 = 6.7, sqrt(0.6)·15 = 11.6
        assert_eq!(rows, [0, 0xf0, 0x80, 0, 0xb2, 0x00, 0, 0x77, 0xc0]);
    }
}
