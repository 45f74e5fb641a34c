//! TFTP, over the boot namespace of [`crate::files`].
