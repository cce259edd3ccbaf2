export { type LogLimits, type LogSuiteOptions, logSuite, type OpenLog } from './log-suite.ts'
export { mountSuite, type OpenMount } from './mount-suite.ts'
