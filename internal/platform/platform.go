// Package platform lets the library build where it is supported, and nowhere else: linux, darwin and windows, on amd64 and
// arm64. On every other platform one of its files has an undefined name, which is the sentence that the compiler prints. The
// packages that depend on a platform import it, so that it fails before they do.
//
// To support another platform means: mappings and syncs that keep what docs/durability.md assumes, a place in
// internal/goid, and all tests passing there.
package platform

// Supported names the platforms.
const Supported = "linux, darwin and windows on amd64 and arm64"
