//! Gateways that show volumes to ordinary clients: NBD.
