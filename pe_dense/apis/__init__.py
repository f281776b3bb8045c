"""Public Python API: conversion of released detectors."""
