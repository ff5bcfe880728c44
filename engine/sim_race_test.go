//go:build race

package engine_test

// simRace: schedules take ten times as long.
const simRace = true
