//go:build !unix

package main

func dropPrivileges() {}
