"""The laboratory of the end-to-end tests: namespaces, virtual machines, forwarders."""
