/*
 * hooks.h
 *	  The hooks by which dsched notices commands that concern its workers.
 */
#ifndef DSCHED_HOOKS_H
#define DSCHED_HOOKS_H

extern void dsched_install_hooks(void);

#endif /* DSCHED_HOOKS_H */
