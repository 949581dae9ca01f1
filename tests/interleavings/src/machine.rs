//! What the checks have in place of the parts of tabi that ask the machine.

pub mod links {
    pub fn is_on_link(_: std::net::Ipv6Addr) -> bool {
        false
    }
}

pub mod memory {
    /// There is always enough here.
    pub struct Memory;

    impl Memory {
        pub fn of_this_machine() -> Option<Self> {
            None
        }

        pub fn look(&self) {}
    }

    pub fn is_tight() -> bool {
        false
    }

    pub fn is_short() -> bool {
        false
    }
}
