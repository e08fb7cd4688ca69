//! The keys of dictionaries, as variables that point at their texts.

use std::ffi::c_char;

#[repr(transparent)]
pub struct Key(*const c_char);

unsafe impl Sync for Key {}

macro_rules! keys {
    ($($name:ident = $text:literal),* $(,)?) => {
        $(#[unsafe(no_mangle)] #[allow(non_upper_case_globals)] pub static $name: Key = Key($text.as_ptr());)*
    };
}
keys! {
    vmnet_operation_mode_key = c"vmnet_operation_mode",
    vmnet_enable_isolation_key = c"vmnet_enable_isolation",
    vmnet_start_address_key = c"vmnet_start_address",
    vmnet_subnet_mask_key = c"vmnet_subnet_mask",
    vmnet_mtu_key = c"vmnet_mtu",
    vmnet_max_packet_size_key = c"vmnet_max_packet_size",
}

static READ_MAX: Key = Key(c"vmnet_read_max_packets".as_ptr());
static WRITE_MAX: Key = Key(c"vmnet_write_max_packets".as_ptr());

/// What macOS 15 added, by the names of the variables.
pub(crate) fn late_key(symbol: &[u8]) -> Option<*const Key> {
    match symbol {
        b"vmnet_read_max_packets_key" => Some(&raw const READ_MAX),
        b"vmnet_write_max_packets_key" => Some(&raw const WRITE_MAX),
        _ => None,
    }
}
