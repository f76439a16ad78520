// Package watchers shows what a crowd of watchers is told: thousands of them, of IDs, prefixes, a flag and everything, over
// server-sent events and gRPC, on views that are killed while events come. Each goes on at the place of the last event that
// it took, on whichever view it finds. In the end the table itself says what each had to be told, and in which order, and the
// judge of histories compares.
//
// It also measures what a watcher that takes nothing costs the others.
//
// Views and the processor are processes of their own, so that a kill is a kill.
package watchers
