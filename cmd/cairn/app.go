package main

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
)

// An app is one run of the program.
type app struct {
	stdin  io.Reader
	stderr io.Writer // for prompts and for commands that are started; all else goes through out
	env    map[string]string
	out    *output
	flags  globalFlags
}

type globalFlags struct {
	repo, cacheDir                             string
	keyFile, passphraseFile, passphraseCommand string
	noProgress                                 bool
	limitUpload, limitDownload                 string
	compression                                string
}

// stdio is the standard streams of one run.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// run runs one command line and returns its exit code. env is as os.Environ
// returns it.
func run(ctx context.Context, args []string, std stdio, env []string) int {
	out := &output{stdout: std.out, stderr: std.err, width: func() int { return 80 }}
	a := &app{stdin: std.in, stderr: std.err, env: parseEnv(env), out: out}
	fd, isTerminal := terminal(std.err)
	if isTerminal {
		out.width = func() int { return columns(fd) }
	}
	root := a.rootCommand() //nolint:contextcheck // cobra hands ctx to each command
	root.PersistentPreRun = func(*cobra.Command, []string) {
		out.live = isTerminal && !out.quiet && !out.json && !a.flags.noProgress && a.env["TERM"] != "dumb"
		out.colours = out.live && a.env["NO_COLOR"] == ""
	}
	root.SetArgs(args)
	root.SetIn(std.in)
	root.SetOut(out)
	root.SetErr(std.err)
	cmd, err := root.ExecuteContextC(ctx)
	out.clear()
	if writeErr := out.failed(); writeErr != nil && ctx.Err() == nil {
		err = writeErr // whatever else happened is most likely a consequence of it
	}
	return a.finish(ctx, cmd, err)
}

// finish tells the error, if there is one, and returns the exit code.
func (a *app) finish(ctx context.Context, cmd *cobra.Command, err error) int {
	code := exitCode(ctx, err)
	if code == exitDone {
		return code
	}
	if _, ok := errors.AsType[*silent](err); ok {
		return code
	}
	text, hint := oneLine(err), hintOf(err)
	if code == exitInterrupted {
		text = "interrupted"
		if cmd.Annotations[longCommand] == "backup" {
			text, hint = "interrupted; nothing was published", "run it again: what was stored is used"
		}
	}
	if code == exitUsage && hint == "" {
		hint = cmd.CommandPath() + " --help"
	}
	if a.out.json && cmd.Annotations[longCommand] != "" {
		_ = a.out.document(failureJSON{Event: "result", Schema: schema, Error: text, Exit: code}) // stderr has it, too
	}
	a.out.complain("cairn: %s", text)
	if hint != "" {
		a.out.complain("hint: %s", hint)
	}
	return code
}

// longCommand marks the commands that print events with --json.
const longCommand = "long"

// failureJSON is the last event of a long command that failed.
type failureJSON struct {
	Event  string `json:"event"`
	Schema int    `json:"schema"`
	Error  string `json:"error"`
	Exit   int    `json:"exit"`
}

// parseEnv makes a map of what os.Environ returns.
func parseEnv(env []string) map[string]string {
	m := make(map[string]string, len(env))
	for _, kv := range env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			continue
		}
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name)
		}
		m[name] = value
	}
	return m
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "cairn",
		Short: "Encrypted, deduplicated backups",
		Long: `Cairn makes encrypted, deduplicated backups and restores them.

Where the repository is and what opens it comes from flags or, if they are not
given, from the environment: ` + strings.Join([]string{envRepo, envCacheDir, envKeyFile}, ", ") + `,
` + strings.Join([]string{envPassphraseFile, envPassphraseCommand, envPassphrase}, ", ") + `.

SNAPSHOT is an id, the first 4 or more digits of one, or "latest".

Exit codes: 0 done, 1 failed and nothing published, 2 usage or configuration,
3 done but items could not be read or restored, 10 no repository there,
11 wrong passphrase or key, 12 repository of a newer format, 13 check found
damage, 130 interrupted.`,
		Example: `  cairn backup ~/documents            # makes the default repository the first time
  cairn snapshots
  cairn restore latest --target /tmp/copy`,
		Args:              cobra.ArbitraryArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE:              group,
	}
	f := root.PersistentFlags()
	f.StringVarP(&a.flags.repo, "repo", "r", "", "`path or URL` of the repository ($"+envRepo+")")
	f.StringVar(&a.flags.cacheDir, "cache-dir", "", "`directory` for caches ($"+envCacheDir+")")
	f.StringVar(&a.flags.limitUpload, "limit-upload", "", "send no more than `bytes` a second, such as 500K or 10M")
	f.StringVar(&a.flags.limitDownload, "limit-download", "", "receive no more than `bytes` a second")
	f.StringVar(&a.flags.keyFile, "key-file", "", "`file` with the key, or SSH private key, that opens the repository ($"+envKeyFile+")")
	f.StringVar(&a.flags.passphraseFile, "passphrase-file", "", "`file` with the passphrase ($"+envPassphraseFile+")")
	f.StringVar(&a.flags.passphraseCommand, "passphrase-command", "", "shell `command` that prints the passphrase ($"+envPassphraseCommand+")")
	f.BoolVarP(&a.out.quiet, "quiet", "q", false, "print errors and what was asked for, nothing else")
	f.BoolVarP(&a.out.verbose, "verbose", "v", false, "print more")
	f.BoolVar(&a.out.json, "json", false, "print JSON")
	f.BoolVar(&a.flags.noProgress, "no-progress", false, "show no progress")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(
		a.initCommand(), a.backupCommand(), a.snapshotsCommand(), a.lsCommand(), a.catCommand(), a.findCommand(), a.diffCommand(),
		a.restoreCommand(), a.swapCommand(), a.deleteCommand(), a.forgetCommand(), a.undeleteCommand(), a.tagCommand(), a.checkCommand(), a.repairCommand(), a.gcCommand(), a.keyCommand(),
		a.cacheCommand(), a.benchCommand(), a.statsCommand(), a.statusCommand(), a.serveCommand(), a.versionCommand(),
	)
	return root
}

// group is what a command does that only holds others: it shows its help, or
// says that there is no such command.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	cmd.SuggestionsMinimumDistance = 2 // letters
	err := usagef("there is no command %q", strings.TrimPrefix(cmd.CommandPath()+" "+printableText(args[0]), "cairn "))
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return withHint(err, "did you mean %s?", strings.Join(near, " or "))
	}
	return err
}
