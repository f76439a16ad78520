//go:build !simruntime

package sim

// Deterministic tells whether the runtime's own chance can be seeded: the binary was built with the overlay.
const Deterministic = false

// SeedRuntime does nothing without the overlay.
func SeedRuntime(uint64) {}
