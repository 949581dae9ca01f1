//! tabi, a SOCKS5 proxy server.
