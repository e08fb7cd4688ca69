//! Reads captures as far as they can be read, whatever network they are of.

use std::path::Path;
use std::{fs, io};

use pcap_parser::{parse_pcap_frame, parse_pcap_frame_be, parse_pcap_header};

/// The frames of every pcap file in a folder.
pub(crate) fn frames_in(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "pcap")
        {
            frames.extend(frames_of(&fs::read(path)?));
        }
    }
    Ok(frames)
}

fn frames_of(bytes: &[u8]) -> Vec<Vec<u8>> {
    let Ok((mut rest, header)) = parse_pcap_header(bytes) else {
        return Vec::new();
    };
    let parse = if header.is_bigendian() {
        parse_pcap_frame_be
    } else {
        parse_pcap_frame
    };
    let mut frames = Vec::new();
    // Some of the files end within a record, on purpose.
    while let Ok((after, record)) = parse(rest) {
        frames.push(record.data.to_vec());
        rest = after;
    }
    frames
}
