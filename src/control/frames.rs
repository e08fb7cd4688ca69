//! Frames of the control channel: one line each, in whatever pieces it comes.

/// The longest request, in bytes, without the line feed that ends it.
pub(super) const FRAME_MAX: usize = 1 << 20;

/// Cuts what comes into frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What has come and is no frame yet, or the rest behind one.
    bytes: Vec<u8>,
    /// Up to here there is no line feed.
    searched: usize,
    /// Whether what comes up to the next line feed belongs to a frame that was too long.
    skips: bool,
}

/// What was cut off.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Frame(Vec<u8>),
    /// One that exceeds [`FRAME_MAX`], whose rest will be skipped.
    TooLong,
}

impl Frames {
    /// How much more there is room for: a frame that is just too long fills it.
    pub(super) fn room(&self) -> usize {
        FRAME_MAX + 1 - self.bytes.len().min(FRAME_MAX)
    }

    /// Takes what has come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Cuts off the next frame, if all of it is there.
    pub(super) fn next(&mut self) -> Option<Cut> {
        loop {
            let end = self.bytes[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            let Some(end) = end.map(|end| self.searched + end) else {
                self.searched = self.bytes.len();
                if self.skips || self.searched > FRAME_MAX {
                    self.bytes.clear();
                    self.searched = 0;
                    return (!std::mem::replace(&mut self.skips, true)).then_some(Cut::TooLong);
                }
                return None;
            };
            let mut frame: Vec<u8> = self.bytes.drain(..=end).collect();
            frame.pop();
            self.searched = 0;
            if !std::mem::take(&mut self.skips) {
                return Some(if frame.len() > FRAME_MAX {
                    Cut::TooLong
                } else {
                    Cut::Frame(frame)
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds in pieces of this size.
    fn cut(bytes: &[u8], size: usize) -> Vec<Cut> {
        let mut frames = Frames::default();
        let mut cut = Vec::new();
        for piece in bytes.chunks(size) {
            frames.push(piece);
            cut.extend(std::iter::from_fn(|| frames.next()));
        }
        cut
    }

    #[test]
    fn lines_are_frames_in_any_pieces() {
        let expected = [&b"one"[..], b"", b"two"].map(|it| Cut::Frame(it.to_vec()));
        for size in [1, 2, 3, 100] {
            assert_eq!(cut(b"one\n\ntwo\nrest", size), expected, "{size}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_told_once_and_skipped() {
        for (len, size) in [
            (FRAME_MAX + 1, FRAME_MAX + 1),
            (FRAME_MAX + 1, FRAME_MAX + 3),
            (5 * FRAME_MAX, 60_000),
            (5 * FRAME_MAX, 5 * FRAME_MAX),
        ] {
            let mut bytes = vec![b'x'; len];
            bytes.extend(b"\nnext\n");
            let cut = cut(&bytes, size);
            assert_eq!(
                cut,
                [Cut::TooLong, Cut::Frame(b"next".to_vec())],
                "{len} {size}"
            );
        }
        let mut bytes = vec![b'x'; FRAME_MAX];
        bytes.push(b'\n');
        assert_eq!(cut(&bytes, 4096), [Cut::Frame(vec![b'x'; FRAME_MAX])]);
    }
}
