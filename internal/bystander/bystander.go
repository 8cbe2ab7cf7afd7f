// Package bystander knows by name what file systems, desktops and file servers put into folders by themselves.
package bystander

import (
	"slices"
	"strings"
)

// Names are such names, mostly found in the root of a volume. A folder with nothing else counts as empty: a store may be
// made there, and leaves them alone.
var Names = []string{
	"lost+found",                  // ext2 to ext4, xfs_repair
	"aquota.user", "aquota.group", // ext4 with quotas
	".snapshot", ".snapshots", ".zfs", // NetApp and other servers, btrfs with snapper, ZFS
	".DS_Store", ".Spotlight-V100", ".fseventsd", ".Trashes", // macOS
	"System Volume Information", "$RECYCLE.BIN", "desktop.ini", "Thumbs.db", // windows
	"@eaDir", // Synology
}

// prefixes begin more of them.
var prefixes = []string{
	".nfs",         // a file that was removed while an NFS client had it open
	".fuse_hidden", // the same of FUSE
	".Trash-",      // desktops, by user
}

// Is reports whether a name in a folder is one of those.
func Is(name string) bool {
	return slices.Contains(Names, name) ||
		slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}
