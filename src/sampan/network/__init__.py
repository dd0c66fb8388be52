"""Networks: links, addresses, the packet filter, names, and foreign plugins."""
