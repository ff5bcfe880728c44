package source

// An inode is what a file is, whatever it is called.
type inode struct{ dev, ino uint64 }

// linkOf names the inode in one number that is not 0 and stays the same from
// backup to backup. The mixing steps are those of splitmix64: one to one, so
// that no two files of one file system can share a number.
func linkOf(id inode) uint64 {
	return max(1, mix(id.ino+mix(id.dev)))
}

func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
