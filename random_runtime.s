// Empty: its presence lets random_runtime.go declare a function without a body.
