//! The channels between the two threads of a direction: crossbeam's, or a stand-in for loom's
//! models.
//!
//! Only those functions of a channel that the forwarder calls are here. It never sends into a full
//! channel; there the stand-in panics where crossbeam's channel would wait.

#[cfg(not(loom))]
pub(super) use crossbeam_channel::{Receiver, Sender, bounded};

#[cfg(loom)]
pub(super) use self::model::{Receiver, Sender, bounded};

#[cfg(loom)]
mod model {
    use std::collections::VecDeque;
    use std::time::Duration;

    use loom::sync::{Arc, Condvar, Mutex};

    #[derive(Debug)]
    pub(in super::super) struct Sender<T>(Arc<Channel<T>>);

    #[derive(Debug)]
    pub(in super::super) struct Receiver<T>(Arc<Channel<T>>);

    /// The other end is gone, or the channel is empty now.
    #[derive(Debug)]
    pub(in super::super) struct Nothing;

    #[derive(Debug)]
    struct Channel<T> {
        state: Mutex<State<T>>,
        changed: Condvar,
    }

    #[derive(Debug)]
    struct State<T> {
        queue: VecDeque<T>,
        capacity: usize,
        has_sender: bool,
        has_receiver: bool,
    }

    pub(in super::super) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let channel = Arc::new(Channel {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                capacity,
                has_sender: true,
                has_receiver: true,
            }),
            changed: Condvar::new(),
        });
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Sender<T> {
        pub(in super::super) fn send(&self, value: T) -> Result<(), Nothing> {
            let mut state = self.0.state.lock().unwrap();
            if !state.has_receiver {
                return Err(Nothing);
            }
            assert!(state.queue.len() < state.capacity, "would wait for room");
            state.queue.push_back(value);
            self.0.changed.notify_one();
            Ok(())
        }
    }

    impl<T> Receiver<T> {
        pub(in super::super) fn recv(&self) -> Result<T, Nothing> {
            let mut state = self.0.state.lock().unwrap();
            loop {
                if let Some(value) = state.queue.pop_front() {
                    return Ok(value);
                }
                if !state.has_sender {
                    return Err(Nothing);
                }
                state = self.0.changed.wait(state).unwrap();
            }
        }

        pub(in super::super) fn try_recv(&self) -> Result<T, Nothing> {
            let mut state = self.0.state.lock().unwrap();
            state.queue.pop_front().ok_or(Nothing)
        }

        /// A model has no time, so this does not wait.
        pub(in super::super) fn recv_timeout(&self, _: Duration) -> Result<T, Nothing> {
            self.try_recv()
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            self.0.state.lock().unwrap().has_sender = false;
            self.0.changed.notify_one();
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            self.0.state.lock().unwrap().has_receiver = false;
        }
    }
}
