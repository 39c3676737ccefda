//! All end-to-end suites, in one binary.

mod architecture;
mod pushing;
mod right_bytes;
mod running;
