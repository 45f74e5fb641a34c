//! DHCP for the machines of this rack.
