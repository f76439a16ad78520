//go:build simruntime

package sim

import _ "unsafe" // for go:linkname

//go:linkname simSeed runtime.simSeed
var simSeed uint64

//go:linkname simOrder runtime.simOrder
var simOrder uint64

// Deterministic tells whether the runtime's own chance can be seeded: the binary was built with the overlay.
const Deterministic = true

// SeedRuntime seeds the runtime's chance for the goroutines of a bubble; 0 gives it back its own.
func SeedRuntime(seed uint64) {
	simOrder, simSeed = seed, seed
}
