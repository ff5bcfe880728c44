package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if os.Getenv("CAIRN_TEST_AS_PROGRAM") != "" { // see signal_unix_test.go
		os.Exit(realMain())
	}
	testscript.Main(m, map[string]func(){
		"cairn":        func() { os.Exit(realMain()) },
		"cairn-nobody": func() { dropPrivileges(); os.Exit(realMain()) },
	})
}

// TestScript runs the command line as its users do. The scripts are in
// testdata/script.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("TZ", "UTC")
			// Under the race detector each process would sleep for a second at its end.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			// A user without rights must be able to get at the work directory.
			if err := os.Chmod(filepath.Dir(env.WorkDir), 0o755); err != nil { //nolint:gosec // a test's
				return err
			}
			return os.Mkdir(home, 0o755) //nolint:gosec // a test's
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":     cmdExits,
			"jsonshape": cmdJSONShape,
			"jsonvalue": cmdJSONValue,
			"lastline":  cmdLastLine,
			"damage":    cmdDamage,
			"mkname":    cmdMakeName,
			"mode":      cmdMode,
			"same":      cmdSame,
			"snapshot":  cmdSnapshot,
			"database":  cmdDatabase,
			"makelive":  cmdMakeLive,
			"mksshkey":  cmdMakeSSHKey,
		},
	})
}
